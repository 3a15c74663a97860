<?xml version="1.0"?>
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform" xmlns:x="urn:example:x">
  <xsl:output method="html" indent="yes"/>
  <xsl:key name="by-name" match="order" use="@x:name"/>
  <xsl:template match="/orders">
    <html>
      <xsl:for-each select="order[generate-id() = generate-id(key('by-name', @x:name)[1])]">
        <xsl:sort select="count(key('by-name', @x:name))" data-type="number" order="descending"/>
        <xsl:sort select="@x:name"/>
        <h1><xsl:value-of select="concat(@x:name, ': ', count(key('by-name', @x:name)))"/></h1>
        <ul>
          <xsl:apply-templates select="key('by-name', @x:name)/line[@sku mod 3 = 0]">
            <xsl:sort select="@sku" data-type="number"/>
          </xsl:apply-templates>
        </ul>
        <xsl:call-template name="repeat">
          <xsl:with-param name="text" select="@x:name"/>
          <xsl:with-param name="times" select="40"/>
        </xsl:call-template>
      </xsl:for-each>
    </html>
  </xsl:template>
  <xsl:template match="line">
    <li class="{@unit}"><xsl:value-of select="translate(., 'aeiou', 'AEIOU')"/>/<xsl:value-of select="format-number(@sku, '#,##0.00')"/></li>
  </xsl:template>
  <xsl:template name="repeat">
    <xsl:param name="text"/>
    <xsl:param name="times"/>
    <xsl:if test="$times &gt; 0">
      <xsl:value-of select="substring($text, $times mod 5)"/>
      <xsl:call-template name="repeat">
        <xsl:with-param name="text" select="$text"/>
        <xsl:with-param name="times" select="$times - 1"/>
      </xsl:call-template>
    </xsl:if>
  </xsl:template>
</xsl:stylesheet>
